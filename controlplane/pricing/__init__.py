"""What models cost: the price sheet, compiled from the catalogue and the operator's own prices."""
