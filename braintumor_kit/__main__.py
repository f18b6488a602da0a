"""`python -m braintumor_kit` is `btkit`."""

from braintumor_kit.commands.main import main

main()
