"""Where work is done: in this process, in others of this machine, or on the machines of a Ray cluster.

Commands divide their work into tasks whose results lie in files or are small, and hand them to an engine. What comes
out does not depend on which one it is, nor on what is lost and begun again on the way.
"""
