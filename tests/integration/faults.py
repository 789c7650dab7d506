"""A disk that fails when it is told to (tests/faults/shim.c)."""

from support import BUILD

KEYTRAIL_FAULTS = BUILD / "keytrail-faults"
STALL = "sync *.jsonl stall"


class Disk:
    def __init__(self, rules):
        self.rules = rules
        # The sanitizers' libraries must come first; they are told to let this one be.
        self.environment = {"LD_PRELOAD": str(BUILD / "faults" / "shim.so"),
                            "KEYTRAIL_SHIM": str(rules),
                            "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def set(self, *rules):
        """From now on these, and no others; the counts of matches begin anew."""
        new = self.rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.rename(self.rules)

    def clear(self):
        self.rules.unlink()
