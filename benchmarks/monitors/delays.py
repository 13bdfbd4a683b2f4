def measured(*a):
    return []
