"""The version of Waxwing. `just release` changes it here, and then in every file that must repeat it."""

VERSION = "0.1.0"
