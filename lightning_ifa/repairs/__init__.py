"""From alarm to repaired model: the last linear layer refitted, measured on samples that nothing else has seen."""
