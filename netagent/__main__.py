"""``python -m netagent`` and the console script."""

from netagent.cli.main import cli


def main() -> None:
    """Run the command line."""
    cli(prog_name="netagent")


if __name__ == "__main__":
    main()
