"""The node that a stage's condition reads: 1 where the gate before it is open, 0 where it is closed or never came.

A condition on a verdict that no run of its node has made, because an earlier gate was closed, cannot be evaluated: TFX
records a failed execution instead of skipping the node. This node always runs, and takes the verdict as an optional
input, so a refused model is a complete run and not a crash, under any of TFX's runners.
"""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from evergreen.components.artifacts import QuantizationReport

_VERDICTS = ("blessing", "report", "infra_blessing")


class Executor(base_executor.BaseExecutor):
    """Reads the property of the verdict, if there is one."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the answer as the artifact's value and as its custom property `open`."""
        verdicts = [artifact for key in _VERDICTS for artifact in input_dict.get(key, [])]
        is_open = int(any(v.get_int_custom_property(exec_properties["property"]) == 1 for v in verdicts))
        (answer,) = output_dict["answer"]
        answer.value = is_open
        answer.set_int_custom_property("open", is_open)


class GateSpec(ComponentSpec):
    """Inputs, parameters and output of Gate."""

    PARAMETERS = {"property": ExecutionParameter(type=str)}
    INPUTS = {
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
        "report": ChannelParameter(type=QuantizationReport, optional=True),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
    }
    OUTPUTS = {"answer": ChannelParameter(type=standard_artifacts.Integer)}


class Gate(base_component.BaseComponent):
    """Says whether the gate before it is open, also where its verdict was never made.

    Outputs:
      answer: an Integer, 1 or 0, with the same number in the custom property `open`.

    Args:
      property: custom property of the verdict that is 1 where the gate is open.
      blessing: gate 2's verdict.
      report: gate 3's verdict.
      infra_blessing: gate 4's verdict.
    """

    SPEC_CLASS = GateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        property: str,
        blessing: types.BaseChannel | None = None,
        report: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
    ):
        super().__init__(
            GateSpec(
                property=property,
                blessing=blessing,
                report=report,
                infra_blessing=infra_blessing,
                answer=types.Channel(type=standard_artifacts.Integer),
            )
        )

    def is_open(self) -> Any:
        """Returns the condition for `Cond`."""
        return self.outputs["answer"].future()[0].custom_property("open") == 1
