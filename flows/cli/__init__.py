"""The command line: commands, their options, and what they print."""


def main() -> None:
    """Run the program `groundup`."""
    from flows.cli import early_signals

    early_signals.catch()
    from flows.cli import commands  # help and completion of other parts need none of it

    commands.main()
