"""From a panel to a verified capacity plan: what it is made from, its search, its cost and its verification."""
