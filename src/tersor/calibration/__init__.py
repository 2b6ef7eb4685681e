"""Samples in, statistics out: input covariances and output Fisher information of every layer with weights.

`collect.collect` runs the whole model once forwards and backwards for every sample; nothing but sums is kept.
`sequential.collect_sequential` goes on block by block over the compressed prefix. `repair` makes up for what rounding
shifts on average.
"""
