"""What a power cut, a bad disk or a careless hand does to a file."""

from pathlib import Path

TEARS = ("cut", "flipped", "empty", "absent")


def tear(path: Path, how: str) -> None:
    """Harm a file in one of the ways of `TEARS`."""
    content = path.read_bytes()
    middle = len(content) // 2
    match how:
        case "cut":
            path.write_bytes(content[:middle])
        case "flipped":
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
            )
        case "empty":
            path.write_bytes(b"")
        case "absent":
            path.unlink()
