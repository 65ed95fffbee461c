"""The example applications, as their READMEs say."""
