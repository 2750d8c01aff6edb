"""The text files of flags whose messages no wheel holds: batching and monitoring."""

import os
from pathlib import Path

import pytest

from evergreen.serving import batching_config, monitoring_config
from evergreen.serving.batching_config import BatchingParameters
from evergreen.serving.errors import ServingError
from evergreen.serving.monitoring_config import MonitoringConfig

SERVING_CONFIG = Path(__file__).resolve().parents[2] / "serving_config"


def test_the_files_that_are_shipped_are_read():
    assert batching_config.read(SERVING_CONFIG / "batching.config").max_batch_size > 1
    assert monitoring_config.read(SERVING_CONFIG / "monitoring.config").enable


def test_batching_has_the_defaults_of_tensorflow_serving():
    assert batching_config.read(None) == BatchingParameters(1000, 0, 10, os.cpu_count(), (), False)


def test_all_batching_fields_are_read():
    text = """
        max_batch_size { value: 8 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } thread_pool_name { value: "batches" }
        allowed_batch_sizes: 2 allowed_batch_sizes: 8 pad_variable_length_inputs: true
    """
    assert batching_config.parse(text, "batching.config") == BatchingParameters(8, 500, 3, 2, (2, 8), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_sze { value: 8 }", "Error parsing .*BatchingParameters: batching.config.*max_batch_sze"),
        ("max_batch_size: 8", "Error parsing"),
        ("max_batch_size { value: 0 }", "max_batch_size must be at least 1, got 0"),
        ("batch_timeout_micros { value: -1 }", "must not be negative"),
        ("allowed_batch_sizes: 4 allowed_batch_sizes: 2 max_batch_size { value: 2 }", "ascending"),
        ("allowed_batch_sizes: 4 max_batch_size { value: 8 }", r"must equal max_batch_size \(8\), got 4"),
    ],
)
def test_wrong_batching_parameters_are_refused(text, words):
    with pytest.raises(ServingError, match=words):
        batching_config.parse(text, "batching.config")


def test_monitoring_is_off_unless_asked_for():
    assert monitoring_config.read(None) == MonitoringConfig(False, "/monitoring/prometheus/metrics")
    assert monitoring_config.parse("prometheus_config {}", "") == MonitoringConfig()
    assert monitoring_config.parse('prometheus_config { enable: true path: "/m" }', "") == MonitoringConfig(True, "/m")


@pytest.mark.parametrize("text", ["prometheus { enable: true }", 'prometheus_config { path: "metrics" }'])
def test_wrong_monitoring_is_refused(text):
    with pytest.raises(ServingError, match=r"monitoring\.config"):
        monitoring_config.parse(text, "monitoring.config")
