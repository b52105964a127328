"""``python -m examples.shop.demo.command …``: the command ``mesh`` as a module, so that it can be leashed."""

from mesh.cli import main

if __name__ == "__main__":
    main()
