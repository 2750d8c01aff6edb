"""What more devices would bring, by hand: bytes of a step, its time, and where it saturates."""

from __future__ import annotations

import math

import pytest

from evergreen.components.errors import ConfigError
from evergreen.components.trainer import scaling
from evergreen.components.trainer.scaling import Network, Volume

DENSE = Volume(gradients=100, weights=100)
TABLES = Volume(gradients=100, weights=200, rows=60, unique=12, examples=30)


class TestBytes:
    def test_a_ring_moves_twice_the_gradients_less_a_share(self):
        # 4 devices: three pieces of a quarter each to reduce, three to spread.
        assert scaling.ring_bytes(4, 100) == 2 * 3 * 25
        assert scaling.ring_bytes(1, 100) == 0

    def test_a_ring_gathers_the_rows_of_the_others(self):
        assert scaling.ring_bytes(3, 0, rows=60) == 40

    def test_of_all_reduce_in_all(self):
        moved = scaling.traffic("multi_worker_mirrored", 3, TABLES)
        assert moved.sent == moved.received == pytest.approx(2 / 3 * (200 + 60))
        assert moved.total == pytest.approx(3 * moved.sent)
        assert scaling.traffic("mirrored", 3, TABLES) == moved

    def test_of_synchronous_parameter_servers(self):
        moved = scaling.traffic("parameter_server", 3, TABLES)
        assert moved.sent == 100 + 20
        assert moved.received == 200 + 20 + 10
        assert moved.total == 3 * (120 + 230) + 100 + 12

    def test_an_asynchronous_update_moves_the_same_however_many_workers_there_are(self):
        moved = scaling.traffic("parameter_server", 3, TABLES, "async")
        assert (moved.sent, moved.received, moved.total) == (112, 290, 402)
        assert scaling.traffic("parameter_server", 9, TABLES, "async") == moved

    def test_a_table_has_no_more_rows_than_it_has(self):
        report = {
            "gradients": 100,
            "reads": 150,
            "example": 4,
            "tables": [
                {"rows": 1000, "row_bytes": 20, "per_example": 2},
                {"rows": 5, "row_bytes": 40, "per_example": 1},
            ],
        }
        assert scaling.volume(report, 10) == Volume(100, 150, 20 * 20 + 10 * 40, 20 * 20 + 5 * 40, 40)


class TestRing:
    # A second of computation, and 0.1 s to send the gradients once.
    dense, fast = Volume(100), Network(1000, 0.0)

    def test_a_step(self):
        found = scaling.predict("mirrored", 1.0, self.dense, self.fast)
        assert found.step_s(1) == pytest.approx(1.0)
        assert found.step_s(4) == pytest.approx(0.25 + 0.15)
        assert found.speedup(4) == pytest.approx(2.5)

    def test_without_latency_every_device_helps_up_to_a_limit(self):
        found = scaling.predict("mirrored", 1.0, self.dense, self.fast)
        assert found.replicas is None
        assert found.limit == pytest.approx(1.0 / 0.2)

    def test_latency_makes_many_devices_slower(self):
        # T(n) = 0.8/n + 0.2 + 0.002 (n-1): the least is at the root of 0.8 / 0.002.
        found = scaling.predict("multi_worker_mirrored", 1.0, self.dense, Network(1000, 0.001))
        assert found.fastest == pytest.approx(20)
        assert found.replicas == 20
        assert found.limit == pytest.approx(1 / (0.04 + 0.2 + 0.038))
        assert found.step_s(19) > found.step_s(20) < found.step_s(21)

    def test_tables_take_more_rounds(self):
        found = scaling.predict("mirrored", 1.0, Volume(100, rows=100), Network(1000, 0.001))
        assert found.step_s(2) == pytest.approx(0.5 + 0.15 + 0.004)

    def test_where_sending_costs_more_than_it_saves_one_device_is_best(self):
        found = scaling.predict("mirrored", 0.1, self.dense, Network(1000, 0.001))
        assert (found.replicas, found.limit) == (1, pytest.approx(1.0))
        assert found.step_s(2) > found.step_s(1)


class TestParameterServers:
    def test_a_synchronous_step(self):
        found = scaling.predict("parameter_server", 1.0, TABLES, Network(1000, 0.001), servers=2)
        # Examples and gradient rows through the coordinator, the sum out of it, six messages.
        always = 0.03 + 0.06 + 0.112 + 0.006
        assert found.step_s(1) == pytest.approx(1.0 + always + 0.2 + 0.06 + 0.1)
        assert found.step_s(2) == pytest.approx(0.5 + always + 0.2 + 0.03 + 0.2)
        assert found.step_s(8) == pytest.approx(0.125 + always + 4 * 0.2 + 0.03 + 0.8)

    def test_it_saturates_at_a_root(self):
        # Each worker adds 0.001 s of gradients at the coordinator and, with one server, 0.001 s of weights.
        found = scaling.predict("parameter_server", 1.0, DENSE, Network(100_000))
        assert found.fastest == pytest.approx(math.sqrt(1.0 / 0.002))
        assert found.replicas == 22
        assert found.limit == pytest.approx(1 / (1 / found.fastest + 0.001 + 0.002 * found.fastest))

    def test_more_servers_move_it_no_further_than_the_coordinator_allows(self):
        fastest = [
            scaling.predict("parameter_server", 1.0, DENSE, Network(100_000), servers).fastest for servers in (1, 3, 20)
        ]
        assert fastest == sorted(fastest)
        assert fastest[-1] <= math.sqrt(1.0 / 0.001)
        # Up to as many workers as servers only the coordinator holds up: its root, 10, is not beyond 20.
        assert scaling.predict("parameter_server", 1.0, DENSE, Network(10_000), 20).fastest == pytest.approx(10)

    def test_both_regimes_meet(self):
        found = scaling.predict("parameter_server", 1.0, TABLES, Network(1000), servers=4)
        assert found.few.step_s(4) == pytest.approx(found.many.step_s(4))

    @pytest.mark.parametrize("servers", [1, 2, 7, 50])
    @pytest.mark.parametrize("bandwidth", [300, 3e4, 3e6])
    def test_the_closed_form_is_the_least_of_all(self, servers, bandwidth):
        found = scaling.predict("parameter_server", 1.0, TABLES, Network(bandwidth, 1e-4), servers)
        assert found.replicas == min(range(1, 1000), key=found.step_s)

    def test_asynchronous_updates_reach_a_rate_and_keep_it(self):
        found = scaling.predict("parameter_server", 1.0, DENSE, Network(1000, 0.0), servers=4, update="async")
        # One worker reads for 0.1 s, computes for 1 s and writes for 0.1 s; writing is one at a time.
        assert found.step_s(1) == pytest.approx(1.2)
        assert found.step_s(2) == pytest.approx(0.6)
        assert found.fastest == pytest.approx(12)
        assert found.replicas == 12
        assert found.step_s(12) == pytest.approx(0.1)
        assert found.step_s(100) == pytest.approx(0.1)
        assert found.limit == pytest.approx(10)

    def test_what_does_not_divide_is_added(self):
        plain, costly = (
            scaling.predict("parameter_server", 1.0, DENSE, Network(1000), overhead_s=cost) for cost in (0.0, 0.5)
        )
        assert costly.step_s(3) == pytest.approx(plain.step_s(3) + 0.5)
        assert costly.replicas == plain.replicas


class TestUnits:
    @pytest.mark.parametrize(
        ("text", "bytes_per_s"),
        [
            ("10Gbit", 1.25e9),
            ("10 Gbit/s", 1.25e9),
            ("100Mbps", 1.25e7),
            ("1.25GB", 1.25e9),
            ("1.25GB/s", 1.25e9),
            ("8kbit", 1e3),
        ],
    )
    def test_of_bandwidth(self, text, bytes_per_s):
        assert scaling.parse_bandwidth(text) == pytest.approx(bytes_per_s)

    @pytest.mark.parametrize("text", ["10", "fast", "0Gbit", "-1Gbit", "10Gbit/min", ""])
    def test_of_bandwidth_that_is_none(self, text):
        with pytest.raises(ConfigError) as error:
            scaling.parse_bandwidth(text)
        assert repr(text) in error.value.reason and "10Gbit" in error.value.reason

    def test_of_latency(self):
        assert [scaling.parse_latency(text) for text in ("50us", "0.2 ms", "0s")] == pytest.approx([5e-5, 2e-4, 0])
        with pytest.raises(ConfigError):
            scaling.parse_latency("50")
