"Passes on what settings.ini says; pyproject.toml lists these fields as dynamic."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
with open(HERE / "settings.ini", encoding="utf-8") as file:
    parser.read_file(file)
settings = parser["DEFAULT"]


def lines(key: str) -> list[str]:
    "The lines of a setting, without the empty ones."
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


setup(
    version=settings["version"],
    license=settings["license"],
    keywords=settings["keywords"].split(),
    classifiers=lines("classifiers"),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    install_requires=lines("requirements"),
    extras_require={name: lines(f"{name}_requirements") for name in ("notebook", "server", "dev")},
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": lines("nbdev_entry"),
                  "optima.plugins": lines("plugins_entry")},
    packages=find_packages(include=["optima", "optima.*"]),
    package_data={"optima": lines("package_data")},
    include_package_data=False,
    zip_safe=False,
)
