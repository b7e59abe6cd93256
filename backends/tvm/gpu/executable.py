"""A model built for a GPU that can be called: the C runtime in its library finds the driver and the GPU."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from lvc.backends.tvm.device import own_kind
from lvc.backends.tvm.runtime.executable import Executable
from lvc.compiler.backend import OnDevice, OtherMachine
from lvc.compiler.device_array import DeviceArray


class GpuExecutable(Executable, OnDevice):
    """See `Executable`. Arrays of the host are copied to the GPU and back, those that lie there are read there;
    ``threads`` mean nothing."""

    def peak_flops(self) -> float:
        return 0.0

    def write(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `OnDevice`; `UsageError` if one does not fit the signature."""
        variant = self._variant(inputs)
        arrays, instance = self._checked(inputs, variant), self._take()
        instance.run(arrays, outputs, variant)
        self._idle.append(instance)

    def _readable(self, array: Any) -> Any:
        return array if isinstance(array, DeviceArray) else np.asarray(array)

    def _check_machine(self) -> None:
        host, text = self.plan.host, self.plan.target.text
        if host != own_kind():
            raise OtherMachine(
                f"this artefact was built for {text}, and this machine cannot run it",
                why=f"the code that drives the GPU is for {host}, and the processor is {platform.machine()}",
                help="build it on a machine of that kind",
            )
