from enum import StrEnum


class MetricsRange(StrEnum):
    VALUE_0 = "10m"
    VALUE_1 = "2h"
    VALUE_2 = "24h"

    def __str__(self) -> str:
        return str(self.value)
