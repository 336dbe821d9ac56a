"""The other side of `guard/sandbox`: what runs in the isolated process. Standard library only, since nothing else is mounted there."""
