"""The commands of ``lockstep``, one file a concern. Their modules import only what declares them:
what does the work is imported when a command runs, so that ``--help`` answers at once."""
