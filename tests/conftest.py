"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long inputs take to be made says how busy the machine is, not whether the code is right.
settings.register_profile("any-machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any-machine")
