"""Text from outside as a terminal may show it: names of files and classes, and what files say of themselves."""


def visible(text: str) -> str:
    """The text with control characters, which could move the cursor or rename the window, and other letters that cannot
    be shown written out (`\\x1b`); line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
