"""mygpt: from a folder of documents to your own GPT, measured at every step."""

__version__ = "0.1.0"
