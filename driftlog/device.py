"""The device that this process computes large batches on, by the setting DRIFTLOG_DEVICE."""

from __future__ import annotations

import kernels
from infra.settings import Settings, SettingsError
from kernels import devices


def use_device(settings: Settings, choice: str | None = None) -> str:
    """Open and use the device of `choice`, or of the settings; its name, 'cpu' for this processor.

    Raises SettingsError if there is no such device.
    """
    try:
        device = devices.chosen(choice or settings.device)
    except (kernels.NoGpu, ValueError) as error:
        raise SettingsError(str(error)) from error
    kernels.use(device)
    return "cpu" if device is None else device.name
