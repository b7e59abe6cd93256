"""A model built for a CPU that can be called."""

from __future__ import annotations

from lvc.backends.tvm.cpu.host import check_host
from lvc.backends.tvm.runtime.executable import Executable


class CpuExecutable(Executable):
    """See `Executable`; its code runs on this machine's processor."""

    def peak_flops(self) -> float:
        from lvc.backends.tvm.cpu.peak import peak_flops

        return self.threads * peak_flops(self.plan.target)

    def _check_machine(self) -> None:
        check_host(self.plan.target.text, self.plan.target.features, self.plan.target.kind)
