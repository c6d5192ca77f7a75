"""Drafts: right or wrong, they are there again after a reload, for their owner alone."""

from __future__ import annotations

from prefix_studio.ui.drafts import Drafts


def test_a_draft_comes_back_in_another_process_view(home):
    values = {"name": "é", "training.learning_rate": "oops", "evaluation.metrics": ["loss"], "training.max_steps": None}
    Drafts(home).save("ada", values)
    assert Drafts(home).load("ada") == values


def test_every_owner_has_a_draft_of_their_own(home):
    drafts = Drafts(home)
    drafts.save("ada", {"name": "hers"})
    drafts.save("../../grace", {"name": "other"})
    assert drafts.load("ada") == {"name": "hers"}
    assert drafts.load("nobody") == {}
    assert {path.parent for path in home.home.rglob("*.yaml")} == {home.home / "drafts"}, "a name is no path"


def test_a_damaged_draft_is_no_draft(home):
    drafts = Drafts(home)
    drafts.save("ada", {"name": "hers"})
    (kept,) = (home.home / "drafts").iterdir()
    for damage in (b"\xff\xfe", b"[1, 2", b"just text", b"!!python/object/apply:os.system ['true']"):
        kept.write_bytes(damage)
        assert drafts.load("ada") == {}


def test_only_plain_values_are_taken_from_a_file(home):
    drafts = Drafts(home)
    drafts.save("ada", {"name": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "data.source": "x"})
    assert drafts.load("ada") == {"data.source": "x"}
