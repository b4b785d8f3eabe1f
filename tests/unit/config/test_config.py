"""The configuration: where values come from, and the error for a bad one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dictalake.cli.options import make_parser, read_config
from dictalake.config.load import find_config, list_keys, load_config
from dictalake.config.locations import resolve
from dictalake.config.sections import Config
from dictalake.errors import ConfigError

SECTIONS = ", ".join(Config.model_fields)

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "conf").glob("*.yaml"))


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("acoustic:\n  batch_s: 10\n  actors: 1\ndecoding:\n  beam_width: 20\n", encoding="utf-8")
    return path


def refusal(path: Path | None = None, overrides: list[tuple[str, str]] | None = None, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides or [], environment)
    return str(caught.value)


def test_a_number_of_actors_below_one_is_refused_in_one_line() -> None:
    assert re.fullmatch(
        r"acoustic\.actors = 0 from the command line: [^\n]+\(allowed: whole number or auto\)",
        refusal(overrides=[("acoustic.actors", "0")]),
    )


def test_file_then_environment_then_command_line_the_later_wins(yaml_file: Path) -> None:
    environment = {"DICTALAKE_ACOUSTIC_BATCH_S": "30", "DICTALAKE_DECODING_BEAM_WIDTH": "40", "HOME": "/root"}
    config = load_config(yaml_file, [("decoding.beam_width", "50")], environment)
    assert (config.acoustic.actors, config.acoustic.batch_s, config.decoding.beam_width) == (1, 30.0, 50)
    assert config.windows.length_s == 20.0


def test_command_line_takes_both_ways_to_write_a_value(yaml_file: Path) -> None:
    argv = ["--config", str(yaml_file), "--archive.uri", "gs://bucket/in", "--lake.uri=./lake", "--decoding.lm", "null"]
    config = read_config(make_parser("backfill", "").parse(argv))
    assert (config.archive.uri, config.lake.uri, config.decoding.lm) == ("gs://bucket/in", "./lake", None)
    assert config.acoustic.batch_s == 10.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lake.uri"], "--lake.uri: expected one argument"),
        (["archive"], "'archive' is one argument too many; put words with spaces between them into quotation marks"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_parser("backfill", "").parse(argv)
    assert str(caught.value) == message


def test_values_are_read_as_yaml() -> None:
    overrides = [
        ("archive.include", "[a/*.wav, '*.dcm']"),
        ("archive.since", "2026-03-01"),
        ("archive.storage_options", "{token: anon, retries: 3}"),
        ("acoustic.actors", "auto"),
    ]
    config = load_config(None, overrides, {})
    assert config.archive.include == ("a/*.wav", "*.dcm")
    assert config.archive.since == datetime(2026, 3, 1, tzinfo=UTC)
    assert config.archive.storage_options == {"token": "anon", "retries": 3}
    assert config.acoustic.actors == "auto"
    assert load_config(None, [("archive.include", "**/*.wav")], {}).archive.include == ("**/*.wav",)


@pytest.mark.parametrize("uri", ["2026", "1e5", "2026-03-01", "null-and-void", "0x10", "yes", "take #1", "a: b"])
def test_a_name_that_looks_like_something_else_stays_a_name(uri: str) -> None:
    assert load_config(None, [("archive.uri", uri)], {}).archive.uri == uri
    assert load_config(None, [], {"DICTALAKE_ACOUSTIC_REVISION": uri}).acoustic.revision == uri


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("acoustic.modle", "did you mean acoustic.model?"),
        ("decoding.beam_with", "did you mean decoding.beam_width?"),
        ("model.batch_s", "did you mean acoustic.batch_s?"),
        ("acousitc.model", "did you mean acoustic.model?"),
        ("zzzz.qqqq", f"sections are {SECTIONS}"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, hint: str) -> None:
    assert refusal(overrides=[(key, "1")]) == f"unknown key {key} from the command line: {hint}"


def test_unknown_keys_of_files_and_environment_name_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("lake:\n  url: here\n", encoding="utf-8")
    assert refusal(path) == f"unknown key lake.url from {path}: did you mean lake.uri?"
    path.write_text("lakes:\n  uri: here\n", encoding="utf-8")
    assert refusal(path) == f"unknown key lakes from {path}: did you mean lake?"
    assert refusal(DICTALAKE_LAKE_URL="here") == (
        "unknown key lake.url from the environment variable DICTALAKE_LAKE_URL: did you mean lake.uri?"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "decoding.beam_width",
            "0",
            "decoding.beam_width = 0 from {}: input should be greater than or equal to 1 (allowed: whole number)",
        ),
        ("decoding.beam_width", "wide", "decoding.beam_width = 'wide' from {}: input should be a valid integer"),
        ("acoustic.dtype", "float16", "acoustic.dtype = 'float16' from {}: input should be 'auto', 'float32' or 'bfloat16'"),
        ("acoustic.actors", "many", "acoustic.actors = 'many' from {}: "),
        ("archive.since", "yesterday", "archive.since = 'yesterday' from {}: "),
        ("lake.earliest_month", "1990", "lake.earliest_month = '1990' from {}: "),
    ],
)
def test_a_bad_value_is_one_line_with_key_value_origin_and_what_is_allowed(
    key: str, value: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    section, name = key.split(".")
    path.write_text(f"{section}:\n  {name}: '{value}'\n" if not value.isdigit() else f"{section}:\n  {name}: {value}\n")
    variable = f"DICTALAKE_{section.upper()}_{name.upper()}"
    given = {
        "the command line": refusal(overrides=[(key, value)]),
        f"the environment variable {variable}": refusal(**{variable: value}),
    }
    if key != "lake.earliest_month":  # YAML takes 1990 for a number
        given[str(path)] = refusal(path)
    for origin, line in given.items():
        assert line.startswith(message.format(origin)), line
        assert "(allowed: " in line
        assert "\n" not in line


def test_values_that_do_not_go_together_are_refused() -> None:
    line = refusal(overrides=[("windows.length_s", "4"), ("windows.overlap_s", "3")])
    assert line == "windows from the command line: overlap_s must be at most half of length_s"


def test_all_bad_values_are_told_at_once() -> None:
    lines = refusal(overrides=[("decoding.beam_width", "0"), ("acoustic.batch_s", "-1")]).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["acoustic.batch_s", "decoding.beam_width"]


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    for text, message in [
        ("a: [1, 2", f"{path}: not YAML, line 1"),
        (
            "- a\n- b\n",
            f"{path}: expected sections ({SECTIONS}), found list",
        ),
        ("lake: ./here\n", f"lake in {path}: expected keys below it, found './here'"),
    ]:
        path.write_text(text, encoding="utf-8")
        assert refusal(path) == message
    with pytest.raises(
        ConfigError, match=r"^--config nowhere: no such file; configurations that ship with dictalake: .*demo.*medasr"
    ):
        find_config("nowhere")


def test_an_empty_file_and_an_empty_environment_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    assert load_config(path, [], {}) == Config()


def test_variables_that_are_no_keys_are_left_alone() -> None:
    """DICTALAKE_GIT_COMMIT is how an image says which code it holds."""
    assert load_config(None, [], {"DICTALAKE_GIT_COMMIT": "d25d97b", "DICTALAKE": "x"}) == Config()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_configuration_loads_by_its_name(path: Path) -> None:
    assert load_config(path.stem, [], {}) == load_config(path, [], {})


def test_the_demo_is_the_default_model() -> None:
    demo, default = load_config("demo", [], {}), Config()
    assert (demo.acoustic, demo.decoding, demo.windows) == (default.acoustic, default.decoding, default.windows)


@pytest.mark.parametrize("key", list_keys(), ids=lambda key: key.name)
def test_every_key_says_what_it_is_and_what_is_allowed(key: object) -> None:
    assert len(key.description) > 10  # type: ignore[attr-defined]
    assert key.allowed  # type: ignore[attr-defined]


def test_help_all_shows_every_key() -> None:
    parser = make_parser("backfill", "what it does")
    parser.show_all_keys()
    shown = " ".join(parser.format_help().replace("-\n", "-").split()).replace(" ", "")
    for key in list_keys():
        assert f"--{key.name}VALUE{key.description}".replace(" ", "") in shown


def test_values_do_not_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().lake.uri = "elsewhere"  # type: ignore[misc]


def test_an_asset_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^embedded:nothing: no such asset; there are: "):
        resolve("embedded:nothing")
    assert resolve("gs://bucket/in") == "gs://bucket/in"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lake.storage_options", "aws_secret_access_key=HUNTER2"),
        ("metrics.pushgateway", "http://user:HUNTER2@pushgateway:9091"),
        ("lineage.server", "http://marquez:5000?api_key=HUNTER2"),
    ],
)
def test_an_error_about_a_value_does_not_repeat_what_may_be_a_secret(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [(key, value)], environment={})
    assert key in str(caught.value)
    assert "HUNTER2" not in str(caught.value)
