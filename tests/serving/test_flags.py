"""The command line of the built-in server."""

import pytest

from evergreen.serving import flags
from evergreen.serving.flags import UsageError, parse

BASE = "--model_base_path=/models/m"


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--port=1234"], "port", 1234),
        (["--port", "1234"], "port", 1234),
        (["-port=1234"], "port", 1234),
        (["--model_name", "flights"], "model_name", "flights"),
        (["--file_system_poll_wait_seconds=0.5"], "file_system_poll_wait_seconds", 0.5),
        (["--enable_batching"], "enable_batching", True),
        (["--enable_batching=true"], "enable_batching", True),
        (["--enable_model_warmup=false"], "enable_model_warmup", False),
        (["--enable_model_warmup=0"], "enable_model_warmup", False),
        ([], "rest_api_timeout_in_ms", 30_000),
        ([], "host", "127.0.0.1"),
    ],
)
def test_a_flag_is_read_as_tensorflow_serving_reads_it(arguments, name, value):
    assert getattr(parse([*arguments, BASE]), name) == value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model_bas_path=/m"], "unknown flag: --model_bas_path (near: --model_base_path"),
        (["--ssl_config_file=x"], "is a flag of TensorFlow Serving that the built-in server does not support"),
        (["serve"], "unknown argument: serve"),
        (["--port=high"], "--port expects a whole number. Received: 'high'"),
        (["--port"], "--port needs a value"),
        (["--port=-1"], "--port must not be negative"),
        (["--port=70000"], "--port must be below 65536"),
        (["--enable_batching=maybe"], "--enable_batching expects true or false"),
        (["--batching_parameters_file=x"], "without --enable_batching"),
        (["--port=8501", "--rest_api_port=8501"], "--rest_api_port cannot be same as --port"),
        (["--grpc_channel_arguments=grpc.max"], "expects key=value"),
        (["--max_concurrent_requests=0"], "must be positive"),
    ],
)
def test_a_flag_that_cannot_be_obeyed_is_named(arguments, said):
    with pytest.raises(UsageError) as error:
        parse([BASE, *arguments])
    assert said in str(error.value)


def test_something_to_serve_is_needed():
    with pytest.raises(UsageError, match="--model_base_path or --model_config_file is needed"):
        parse(["--port=1"])


def test_help_lists_every_flag_and_says_which_are_ours():
    text = flags.usage()
    assert "--enable_model_warmup=true" in text
    assert [line.split("=")[0].strip() for line in text.splitlines() if "(not of TensorFlow Serving)" in line] == [
        "--host",
        "--max_request_bytes",
        "--max_concurrent_requests",
    ]


def test_channel_arguments_that_are_integers_become_integers():
    text = "grpc.max_connection_age_ms=2000,grpc.primary_user_agent=me"
    assert flags.channel_arguments(text) == [
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.primary_user_agent", "me"),
    ]
