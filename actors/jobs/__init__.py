"""The words of jobs: what they are given, how they end, what states they and their workers are in.

Everything here is pure; who asks, who does and who hosts use it alike.
"""
