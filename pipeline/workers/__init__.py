"""The only package that imports ray: clusters, Train workers, Data actors, job submission."""
