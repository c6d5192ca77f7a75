"""Where the studio lives, and what it refuses to read."""

from __future__ import annotations

import stat

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.settings import Settings


def test_the_home_is_the_persons_data_folder_unless_told():
    settings = Settings.from_environment({"XDG_DATA_HOME": "/somewhere"})
    assert settings.home.name == "prefix-studio"
    assert Settings.from_environment({"PREFIX_STUDIO_HOME": "/else"}).home.parts[-1] == "else"


def test_only_its_owner_reads_the_home(home):
    assert stat.S_IMODE(home.home.stat().st_mode) == 0o700


def test_the_token_is_made_once_and_kept(home):
    token = home.token()
    assert len(token) >= 32
    assert home.token() == token
    assert stat.S_IMODE((home.home / "token").stat().st_mode) == 0o600


def test_logins_are_pairs():
    settings = Settings.from_environment({"PREFIX_STUDIO_AUTH": "ada:se:cret, grace:other"})
    assert settings.logins == (("ada", "se:cret"), ("grace", "other"))
    assert "cret" not in repr(settings)
    with pytest.raises(StudioError, match="PREFIX_STUDIO_AUTH is not a list of name:password pairs"):
        Settings.from_environment({"PREFIX_STUDIO_AUTH": "ada"})


def test_an_upload_limit_is_a_number():
    assert Settings.from_environment({"PREFIX_STUDIO_MAX_UPLOAD_MB": "5"}).max_upload_bytes == 5 * 1024 * 1024
    with pytest.raises(StudioError, match="PREFIX_STUDIO_MAX_UPLOAD_MB is 'lots'"):
        Settings.from_environment({"PREFIX_STUDIO_MAX_UPLOAD_MB": "lots"})


@pytest.mark.parametrize(
    ("environment", "place"),
    [({}, "local"), ({"SYSTEM": "spaces"}, "space"), ({"SYSTEM": "spaces", "SPACES_ZERO_GPU": "true"}, "zerogpu")],
)
def test_it_knows_a_space_from_a_desk(environment, place):
    assert Settings.from_environment(environment).place == place


def test_a_home_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="cannot be written"):
        Settings(home=tmp_path / "file" / "home").prepare()
