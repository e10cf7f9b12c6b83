"""An independent check of the audit log, from its files and the public key alone.

Needs Python and `cryptography`; imports nothing of the service. The folder may be copied anywhere and run there:
``python verify LOGDIR --key VKEY``. Written from docs/log-format.md.
"""
