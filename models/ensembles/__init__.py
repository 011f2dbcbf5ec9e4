"""Several looks and several networks behind one answer: views, combination, cascades, and how they are fitted."""
