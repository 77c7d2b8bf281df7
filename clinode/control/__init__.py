"""What a system can be made to do: Gramians, controllability, energies, targets, stimuli."""
