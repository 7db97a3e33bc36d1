"""``python -m medcrypt_hsm`` is ``medcrypt``."""

from medcrypt_hsm.cli import main

if __name__ == "__main__":
    main()
