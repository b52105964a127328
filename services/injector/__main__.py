"""``python -m services.injector``."""

from services.injector.main import main

main(prog_name="python -m services.injector")
