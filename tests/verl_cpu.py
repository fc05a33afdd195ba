"""verl without an accelerator: a platform whose device is the CPU, and a rollout, put into verl's registries.

For VERL_USE_EXTERNAL_MODULES=verl_cpu, in the trainer's process and in all that Ray starts. Ray is told of GPUs that
do not exist (`+ray_kwargs.ray_init.num_gpus=N`), as verl places its workers by them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplicaRegistry


class _Device(types.ModuleType):
    """torch.cpu; what only accelerators have (memory statistics, caches) answers 0."""

    get_rng_state = staticmethod(lambda *_: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_: torch.set_rng_state(state))
    mem_get_info = staticmethod(lambda *_: (0, 0))
    get_device_name = staticmethod(lambda *_: "CPU")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name, lambda *_, **__: 0)


_DEVICE = _Device("verl_cpu_device")


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """verl's device is the CPU; processes talk by gloo."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = cudart = _nothing
    manual_seed_all = manual_seed


def _load_replica() -> Any:
    from verl_cpu_rollout import Replica

    return Replica


def install() -> None:
    """Make it this process's platform, and `cpu` a rollout of verl's."""
    set_platform(CPUPlatform())
    base._ROLLOUT_REGISTRY[("cpu", "async")] = "verl_cpu_rollout.Adapter"
    RolloutReplicaRegistry.register("cpu", _load_replica)
    # verl names a backend for the host and one for the device; here they are one, which torch takes once only
    start = torch.distributed.init_process_group

    def start_once(backend: str | None = None, *given: Any, **more: Any) -> None:
        start("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *given, **more)

    torch.distributed.init_process_group = start_once
    torch.Tensor.pin_memory = lambda tensor, *_, **__: tensor  # only accelerators read from pinned memory


install()
