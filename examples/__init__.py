"""Programs that use Trimaran as anyone would: over plain HTTP."""
