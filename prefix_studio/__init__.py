"""Prefix Studio: no-code prefix tuning of language models (Li and Liang 2021, arXiv 2101.00190)."""

__version__ = "0.1.0"
