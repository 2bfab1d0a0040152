"""Learning: data → batch → method → engine → evaluation.

Only this docstring lives here. The sub-packages are the folders of `ssl/` in the repository, which itself must not be a
package: it would shadow the standard library's `ssl`.
"""
