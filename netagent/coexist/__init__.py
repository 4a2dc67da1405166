"""Marks in other people's firewalls: Docker's, ufw's, firewalld's. The only code that runs their programs.

Each class brings the marks in one of them to what ``firewall/marks.py`` asks for, or takes all of them away. Marks are
known by their comment or name, so nothing else of theirs is touched, and no memory is needed to find them again.
"""
