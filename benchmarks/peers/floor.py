"""The bare base model on our batches: forward, logits of the learned positions only, backward through every layer.

No prefix, no optimizer and no loop around it. Embeddings that ask for a gradient stand for the first layer's keys and
values: the way back is as long as a prefix's. What is above this is what a prefix and a training loop cost.
"""

from __future__ import annotations

from benchmarks.peers.task import Task, Tick


def train(task: Task, tick: Tick) -> None:
    import torch
    from torch.nn import functional

    from prefix_studio.training.batches import Order, collate

    model, tokenizer, training = task.model(), task.tokenizer(), task.recipe.training
    rows = task.rows(tokenizer)
    order = Order(rows, training.per_device_train_batch_size, 1, task.seed)
    tick()
    for step in range(training.max_steps):
        (indexes,) = order.step(step)
        batch = collate([rows[index] for index in indexes], tokenizer.pad_token_id)
        targets = torch.full_like(batch.labels, -100)
        targets[:, :-1] = batch.labels[:, 1:]
        keep = targets != -100
        embeddings = model.get_input_embeddings()(batch.input_ids).requires_grad_()
        logits = model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=keep).logits
        functional.cross_entropy(logits, targets[keep]).backward()
        tick()


def start_loss(task: Task) -> None:
    return None
