"""`serve` refuses what cannot work before it listens, and counts itself idle only when nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.server.app import Activity, listen, serve


def test_adapters_need_a_model(home, tmp_path):
    with pytest.raises(StudioError, match="adapters but no model"):
        serve(home, port=0, adapters=[tmp_path])


def test_what_is_wrong_with_an_adapter_is_known_before_anybody_asks(home, tmp_path):
    with pytest.raises(StudioError, match=f"The adapter {tmp_path} cannot be used with the bundled model"):
        serve(home, port=0, model="bundled", adapters=[tmp_path])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_named(host):
    try:
        holder = listen(host, 0)
    except StudioError:
        pytest.skip(f"this machine has no {host}")
    port = holder.getsockname()[1]
    with pytest.raises(StudioError, match=f"Port {port} on {host} cannot be used"):
        listen(host, port)
    holder.close()


def test_an_impossible_port_is_refused():
    with pytest.raises(StudioError, match="Port 70000 on 127.0.0.1 cannot be used"):
        listen("127.0.0.1", 70000)


def test_only_open_requests_and_recent_ones_count_as_activity():
    inside = []

    async def app(scope, receive, send):
        inside.append(activity.idle_seconds)

    activity = Activity(app)
    activity._last -= 100
    asyncio.run(activity({"type": "http", "path": "/health"}, None, None))
    assert inside[0] >= 100
    assert activity.idle_seconds >= 100
    asyncio.run(activity({"type": "http", "path": "/v1/models"}, None, None))
    assert inside[1] == 0
    assert activity.idle_seconds < 10
