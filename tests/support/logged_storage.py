"""A folder that notes which objects were read whole, by any process."""

from collections import Counter
from pathlib import Path

from batch.storage.local import LocalStorage


class LoggedStorage(LocalStorage):
    """Its notes lie beside the folder; a line a read, so short that processes do not write into one another's."""

    @property
    def log(self) -> Path:
        """Of all reads."""
        return Path(f"{self.root}.reads")

    def read(self, key: str) -> bytes:
        with self.log.open("a") as log:
            log.write(f"{key}\n")
        return super().read(key)

    def reads(self) -> Counter[str]:
        """How often each object was read since the last call."""
        found = Counter(self.log.read_text().split())
        self.log.write_text("")
        return found
