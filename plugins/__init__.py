"""The built-in plugins, `<kind>/<name>.py`, installed as the package `btkit_plugins`.

From the repository's root the folder could also be imported as `plugins`; each module would then exist twice, and
a plugin class would not be the class that the registry knows. So any other name is refused.
"""

if __name__ != "btkit_plugins":
    raise ImportError(f"import the built-in plugins as btkit_plugins, not as {__name__}")
