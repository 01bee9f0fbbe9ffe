"""Text of others (a study's, a site's) on its way to a screen, log, table or figure: one line, printable, short."""

LONGEST_SHOWN = 200  # characters of a name; what is longer is cut, and ends in "..."
LONGEST_LINE = 4000  # of a sentence, which may hold many


def printable(text: object, most: int = LONGEST_SHOWN) -> str:
    r"""The text with every character that cannot be seen written out (`\n`, `\x1b`, `\u202e`), and cut to `most`.

    Nothing that it holds can begin a line, move the cursor, color what follows or reverse its direction.
    """
    whole = str(text)
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in whole[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."
