"""A site's no: the reason is of a closed list, its details are for the site's own log."""

from flip.messages import Fault


class Refusal(Exception):
    """The site does not take part, or does not answer, for a reason of the closed list.

    Args:
        fault: what the coordinator learns.
        detail: what the site's own log adds; never sent.
    """

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault.value}. {detail}" if detail else fault.value)
        self.fault = fault
