"""Turns are short while somebody wants them so, and as before once nobody does, in whatever order they leave."""

import sys

from secure_embed.collection.pace import short_turns, turn_s


def test_the_last_one_out_puts_it_back():
    before = sys.getswitchinterval()
    first, second = short_turns(), short_turns()
    first.__enter__()
    second.__enter__()
    assert abs(sys.getswitchinterval() - turn_s) < 1e-6
    first.__exit__(None, None, None)
    assert abs(sys.getswitchinterval() - turn_s) < 1e-6
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == before
