"""Which rows go where: splits and their certificate, balance over lengths, training arms."""
