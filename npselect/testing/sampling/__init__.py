"""Ops that draw their own noise, judged: the sample, its gradient and the distribution.

`op` says what is judged, `check` judges it, `report` tells.
"""
