"""cli/demo/: the demonstration's scenario, and the synthetic corpus and measures that it stands on.

The corpus is invented from beginning to end (docs/decisions/0010-demo-corpus.md): nobody in it lives. The service
itself never imports this package.
"""
