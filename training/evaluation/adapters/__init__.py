"""AudioPG behind the interfaces of the benchmarks' own kits, one file each; `training/benchmark_kits.py` runs them."""
